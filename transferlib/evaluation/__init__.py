"""From predictions to figures: one table of logits a trial and split, and the metrics computed from all of it at once.

Nothing here averages averages: sums are taken over every image of a split and divided once, and a table that does not
hold exactly the manifest's images is an error, not a number.
"""
