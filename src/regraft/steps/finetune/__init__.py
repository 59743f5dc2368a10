"""Step 6: what is trained (`tune`), by which settings (`rules`), on which activations (`prefix`), and how
it is judged.
"""
