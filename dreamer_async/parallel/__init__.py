"""One run on several devices: processes that learn as one, started by torchrun.

`world` says which process of how many this is, `shares` what of a run is its part, `meeting` where
they find each other, `group` does what they compute together, `link` carries everything else
between them, `launch` starts them.
"""
