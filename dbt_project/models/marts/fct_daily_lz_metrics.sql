with resources as (

    select * from {{ ref('int_resources_aggregated_to_days') }}

),

coverages as (

    select * from {{ ref('int_coverages_aggregated_to_days') }}

),

costs as (

    select * from {{ ref('int_costs_aggregated_to_days') }}

),

inventory as (

    select
        coalesce(coverages.snapshot_date, resources.snapshot_date) as snapshot_date,
        coalesce(resources.as_of, coverages.as_of) as as_of,
        -- a complete snapshot without a resource counted none; an incomplete one knows nothing
        case
            when resources.snapshot_date is not null then resources.total_resources
            when coverages.coverage = 'complete' then 0
        end as total_resources,
        case
            when resources.snapshot_date is not null then resources.resources_with_violations
            when coverages.coverage = 'complete' then 0
        end as resources_with_violations,
        resources.avg_compliance,
        coalesce(coverages.coverage, resources.coverage) as coverage
    from coverages
    full outer join resources
        on coverages.snapshot_date = resources.snapshot_date

),

joined as (

    select
        coalesce(inventory.snapshot_date, costs.usage_date) as date,
        coalesce(costs.currency, 'XXX') as currency,
        inventory.total_resources,
        inventory.resources_with_violations,
        costs.net_cost as total_cost,
        inventory.avg_compliance,
        coalesce(inventory.coverage, 'unknown') as resource_coverage,
        coalesce(costs.coverage, 'unknown') as cost_coverage,
        inventory.as_of as inventory_as_of,
        costs.as_of as cost_as_of
    from inventory
    full outer join costs
        on inventory.snapshot_date = costs.usage_date

)

select
    date,
    cast({{ landing_zone() }} as string) as source,
    cast(currency as string) as currency,
    cast(total_resources as bigint) as total_resources,
    cast(resources_with_violations as bigint) as resources_with_violations,
    cast(total_cost as {{ type_exact() }}) as total_cost,
    avg_compliance,
    cast(case when resource_coverage = cost_coverage then cost_coverage else 'partial' end as string) as coverage,
    cast(resource_coverage as string) as resource_coverage,
    cast(cost_coverage as string) as cost_coverage,
    case
        when inventory_as_of is null then cost_as_of
        when cost_as_of is null or inventory_as_of < cost_as_of then inventory_as_of
        else cost_as_of
    end as as_of
from joined
