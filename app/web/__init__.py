"""The pages: parse, call one domain function, render one template. One file a screen."""
