"""HTTP over the library: OpenAI's and Anthropic's dialects, sessions, figures (extra "server")."""
