"""The only caller of the API server: kinds, access, client, errors. Nothing here decides."""
