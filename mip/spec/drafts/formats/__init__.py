"""How the cells of columns are written, guessed from the cells: numbers, dates and durations."""
