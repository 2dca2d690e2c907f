"""The command as a module: `python -m app.commands`, where the script `prefloop` is not on the path."""

from app.commands import main

main()
