"""One module a page: each lays out its widgets and fills them from a view."""
