"""How single observations are read: what a reader is, and which one a Box gets.

`spaces` plans the readers of a whole space with these.
"""
