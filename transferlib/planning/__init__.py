"""The plan of a job, made before anything starts: trials, resources, placement, cost, advice. No torch, no Ray."""
