"""The command line: flags to a spec, a spec to a plan, a run folder and a job, and what the job does on the terminal.

Loads click and the standard library only; everything else inside the commands, so that `--help` answers at once.
"""
