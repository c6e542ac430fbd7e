"""`packstream demo`: a marketplace week of real page views through every process, and proof that the money adds up."""
