"""Where rows are kept: one module a table, with its keys and indexes."""
