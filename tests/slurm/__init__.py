"""A Slurm of one node, and sweeps that it carries out."""
