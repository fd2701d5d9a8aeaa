-- What is in this warehouse, and when was it loaded?
SELECT kind, count(*) AS folders, min(loaded_at) AS first, max(loaded_at) AS last
FROM landed
GROUP BY kind
ORDER BY kind;
