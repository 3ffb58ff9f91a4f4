"""The live page: pictures, a camera, drives and the server's state in a browser, through the project's own client."""
