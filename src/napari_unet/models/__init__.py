"""Weights in and out: network plus card."""
