"""The losses that the live table shows of a job: at even distances over its whole curve."""

MOST = 24

LOSS_CURVE = f"""(
    SELECT array_agg(chosen.loss::real ORDER BY number)
    FROM (SELECT step FROM metrics WHERE job_id = jobs.id ORDER BY step DESC LIMIT 1) AS last (step),
    LATERAL generate_series(1, least({MOST}, last.step)) AS number,
    LATERAL (
        SELECT loss FROM metrics
        WHERE job_id = jobs.id AND step >= number * last.step::bigint / least({MOST}, last.step)
        ORDER BY step LIMIT 1
    ) AS chosen
)"""
"""An expression for a row of `jobs`. It takes a look into the index for each loss, so a job keeps what it gives when it
ends; metrics come only while a job runs."""
