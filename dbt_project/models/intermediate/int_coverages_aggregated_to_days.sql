with coverages as (

    select * from {{ ref('stg_inventory__coverages') }}

),

latest_snapshots as (

    select
        snapshot_date,
        max(as_of) as as_of
    from coverages
    group by snapshot_date

)

select
    coverages.snapshot_date,
    coverages.as_of,
    {{ common_coverage('coverages.coverage') }} as coverage
from coverages
inner join latest_snapshots
    on
        coverages.snapshot_date = latest_snapshots.snapshot_date
        and coverages.as_of = latest_snapshots.as_of
group by coverages.snapshot_date, coverages.as_of
