"""`python -m regraft`: the command line where its script is not on the path."""

from regraft.cli import main

main()
