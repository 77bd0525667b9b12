-- Runs say who is at work on them: a command that was killed cannot take back that it runs. And the flags of published
-- runs stand in the place of the live ones of their ranges, as their figures do. For that a flag has an effect pane, as
-- all rows have: where what it moved stands. Rows of before stand where their events happened. Every statement can be
-- run again.

ALTER TABLE runs
    ADD COLUMN IF NOT EXISTS holder String COMMENT 'Machine and directory of the command that was last at work on it.' AFTER note;

ALTER TABLE runs
    COMMENT COLUMN state 'running, done, failed, interrupted or dropped. A running one tells so every 10 s: it was killed if changed is a minute old.';
