"""What it all cost: one source of figures for the page, its JSON and the command."""
