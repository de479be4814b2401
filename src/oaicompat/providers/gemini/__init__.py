"""Google Gemini, by either front door: the Gemini API and Vertex AI."""
