-- What counts: the live rows, and in the ranges of published runs the runs' rows in their place. All views for people
-- read these. A range is decided on by effect pane, so corrections that come later add up on top.

CREATE OR REPLACE VIEW shown_pane_rows
AS WITH (
    SELECT groupArray((run, from_pane, to_pane)) FROM publications FINAL WHERE is_published
) AS published
SELECT * FROM pane_rows FINAL
WHERE NOT arrayExists(p -> effect_pane >= p.2 AND effect_pane < p.3, published)
UNION ALL
SELECT * EXCEPT run FROM run_pane_rows FINAL
WHERE arrayExists(p -> run = p.1 AND effect_pane >= p.2 AND effect_pane < p.3, published)
COMMENT 'Rows of pane_rows as they count, with those of published runs.';

CREATE OR REPLACE VIEW shown_report_rows
AS WITH (
    SELECT groupArray((run, from_pane, to_pane)) FROM publications FINAL WHERE is_published
) AS published
SELECT * FROM report_rows FINAL
WHERE NOT arrayExists(p -> effect_pane >= p.2 AND effect_pane < p.3, published)
UNION ALL
SELECT * EXCEPT run FROM run_report_rows FINAL
WHERE arrayExists(p -> run = p.1 AND effect_pane >= p.2 AND effect_pane < p.3, published)
COMMENT 'Rows of report_rows as they count, with those of published runs.';

CREATE OR REPLACE VIEW shown_cohort_rows
AS WITH (
    SELECT groupArray((run, from_pane, to_pane)) FROM publications FINAL WHERE is_published
) AS published
SELECT * FROM cohort_rows FINAL
WHERE NOT arrayExists(p -> effect_pane >= p.2 AND effect_pane < p.3, published)
UNION ALL
SELECT * EXCEPT run FROM run_cohort_rows FINAL
WHERE arrayExists(p -> run = p.1 AND effect_pane >= p.2 AND effect_pane < p.3, published)
COMMENT 'Rows of cohort_rows as they count, with those of published runs.';
