"""The flags that several programs share, as command lines and their help need them: nothing here imports torch."""
