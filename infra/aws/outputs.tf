output "store" {
  description = "For TRIAD_STORE."
  value       = "s3://${var.bucket}/${var.prefix}"
}

output "submitter_policy" {
  description = "To attach to whoever submits."
  value       = aws_iam_policy.submitter.arn
}

output "site" {
  description = "For TRIAD_SITE: terraform output -raw site > site.yaml"
  value = yamlencode({
    aws_batch = merge(
      {
        queue          = aws_batch_job_queue.pool["cpu"].name
        images         = var.images
        job_role       = aws_iam_role.job.arn
        execution_role = aws_iam_role.execution.arn
        log_group      = aws_cloudwatch_log_group.jobs.name
        environment    = { AWS_REGION = var.region }
        secrets        = var.secrets
      },
      var.gpu_max_vcpus > 0 ? { gpu_queue = aws_batch_job_queue.pool["gpu"].name } : {},
    )
  })
}
