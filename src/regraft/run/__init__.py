"""One run: opened (`open`), walked through its seven steps (`walk`), and held by those who asked for it
(`handle`).
"""
