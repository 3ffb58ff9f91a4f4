"""The live page: shows pictures, a camera, drives and the server's state in a browser, using the project's client."""
