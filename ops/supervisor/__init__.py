"""`packstream up`: the whole system under one process that starts, watches, restarts and stops the others."""
