"""The local stack: every part of the system as a real process, from packages, without Docker.

``units`` says what a part is, ``parts/`` has one module per part, ``servers/`` the entry points of the
parts that run in Python, ``local`` starts, stops and looks at a whole stack, ``install`` brings what no
Python package carries (Kafka's jars, the Stripe mock).
"""
