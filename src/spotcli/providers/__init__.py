"""Model providers: a client for any model that litellm supports, rate limits, retries, and what a reply contains."""
