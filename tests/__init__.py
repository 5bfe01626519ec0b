"""One file per module. It is a package because opensimplex, which crafter needs, installs one of
that name, which would hide a folder."""
