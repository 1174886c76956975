"""The operator's command line: `main` parses, `commands` does, `render` shows."""
