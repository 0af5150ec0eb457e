"""The service: pictures in over HTTP, faces out as JSON, and a page to try it with."""
