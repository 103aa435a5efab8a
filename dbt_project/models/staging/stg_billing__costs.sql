with raw_lines as (

    select * from {{ source('billing', 'costs') }}

),

renamed as (

    select
        cast(usage_date as date) as usage_date,
        cast(line_number as bigint) as line_number,
        cast(billing_account_id as string) as billing_account_id,
        cast(service as string) as service,
        cast(sku as string) as sku,
        cast(project_id as string) as project_id,
        cast(resource_name as string) as resource_name,
        cast(location as string) as location,
        cast(currency as string) as currency,
        cast(cost as {{ type_exact() }}) as cost,
        cast(credits as {{ type_exact() }}) as credits,
        cast(net_cost as {{ type_exact() }}) as net_cost,
        cast(invoice_month as string) as invoice_month,
        cast(cost_type as string) as cost_type,
        cast(usage_start_time as {{ type_instant() }}) as usage_start_time,
        cast(usage_end_time as {{ type_instant() }}) as usage_end_time,
        cast(export_time as {{ type_instant() }}) as export_time,
        cast(coverage as string) as coverage
    from raw_lines

)

select * from renamed
