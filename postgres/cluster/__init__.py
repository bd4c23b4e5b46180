"""Clusters of PostgreSQL servers: who is primary, who follows how closely, who takes over."""
