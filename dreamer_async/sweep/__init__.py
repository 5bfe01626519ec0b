"""Many runs: which there are, and carrying them out on this machine or by Slurm.

grid     the runs that words or a TOML file ask for
ranges   what a search may choose
cost     hours and disk, before anything is made
work     making one run, starting its trainer, and how it ended
local    N runs at a time on this machine
stop     ending all of it, whoever carries it out
slurm    an array of jobs, through submitit
search   which runs a search of Optuna asks for, and which it gives up
"""
