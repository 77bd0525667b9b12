"""The built-in console: a JSON API over what ClickHouse holds, its access rules, and the page built on it."""
