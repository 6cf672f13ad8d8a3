"""The `redserve` command, one file per subcommand."""
