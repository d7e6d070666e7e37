"""HTTP server and browser page for an exported file."""
