"""The store on SQLAlchemy 2 (Core): one file per noun, `store.py` opens transactions."""
