-- Each version ends where the next one begins, and the last one alone is current: no gap, no overlap.
with versions as (

    select
        resource_name,
        content_type,
        version,
        valid_from,
        valid_to,
        is_current,
        lead(valid_from) over (
            partition by resource_name, content_type
            order by version
        ) as next_valid_from
    from {{ ref('dim_resources') }}

)

select *
from versions
where
    (next_valid_from is null) <> is_current
    or valid_to <> next_valid_from
    or valid_to < valid_from
