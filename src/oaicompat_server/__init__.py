"""The gateway: an OpenAI API on a local port, served by Gemini through the conversion core."""
