"""A first spec for a table.

Look at the cells of each column (`distinct_cells`), find the columns of photos and the files that
they name (`photos`), how other cells are written (`formats`), what is predicted and how rows are
split (`targets`), and what each column is (`roles`); then write the spec (`drafting`, `blocks`).
"""
