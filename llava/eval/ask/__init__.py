"""From a task to a file of answers."""
