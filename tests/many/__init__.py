"""One client, twenty job servers: some are killed and some are added while jobs go in."""
