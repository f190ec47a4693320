"""One optimizer per file. To add one, copy `lion.py`, which has a kernel of its own, or `radam.py`,
which calls one of torch's; then name it in `mip/optim/__init__.pyi`, in `mip/spec/kinds.py`, in
`CASES` of `tests/optim/test_optim.py` and in the table of `docs/training.md`.
"""
