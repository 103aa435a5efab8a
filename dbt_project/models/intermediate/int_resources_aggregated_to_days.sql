with readings as (

    select
        *,
        row_number() over (
            partition by snapshot_date, resource_name
            order by as_of desc
        ) as reading_number
    from {{ ref('stg_inventory__resources') }}

),

aggregated as (

    select
        snapshot_date,
        max(as_of) as as_of,
        count(*) as total_resources,
        count(case when violation_count > 0 then resource_name end) as violating_resources,
        sum(controls_decided) as controls_decided,
        -- a sum of doubles depends on their order, so that the same data would not give the same figure twice
        cast(avg(cast(compliance_score as {{ type_exact() }})) as {{ type_ratio() }}) as avg_compliance,
        {{ common_coverage('coverage') }} as coverage
    from readings
    where reading_number = 1
    group by snapshot_date

)

select
    snapshot_date,
    as_of,
    total_resources,
    -- where no control was decided, nobody knows whether one is violated
    case when controls_decided > 0 then violating_resources end as resources_with_violations,
    avg_compliance,
    coverage
from aggregated
