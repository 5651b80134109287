"""Batch APIs of providers: many requests are handed over together, answered within a day, and cost half.

api         what all of them have in common: states, rows, limits
client      makes the requests as ordinary ones are made, and reads the replies as ordinary ones are read
files       requests in an uploaded file, results in another one: OpenAI's API, by its package
anthropic   requests in one body, results as JSON lines
gemini      requests in one body, results in the operation
http        the requests of the two clients that are our own, since litellm's calls do not create those batches
"""
