resource "aws_cloudwatch_log_group" "jobs" {
  name              = "/${var.name}/jobs"
  retention_in_days = var.log_days
}

# Nothing comes in.
resource "aws_security_group" "machines" {
  name        = "${var.name}-machines"
  description = "Machines of AWS Batch that run triad"
  vpc_id      = var.vpc_id
}

resource "aws_vpc_security_group_egress_rule" "https" {
  security_group_id = aws_security_group.machines.id
  description       = "S3, ECR, ECS, CloudWatch Logs"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  cidr_ipv4         = "0.0.0.0/0"
}

resource "aws_launch_template" "machines" {
  name = "${var.name}-machines"

  # One hop: containers have their job's role and not the machine's.
  metadata_options {
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  block_device_mappings {
    device_name = "/dev/xvda"
    ebs {
      volume_size           = var.disk_gib
      volume_type           = "gp3"
      encrypted             = true
      delete_on_termination = true
    }
  }

  # Spot gives two minutes: containers are told at once, and have most of them for a checkpoint.
  user_data = base64encode(<<-MIME
    MIME-Version: 1.0
    Content-Type: multipart/mixed; boundary="==triad=="

    --==triad==
    Content-Type: text/x-shellscript; charset="us-ascii"

    #!/bin/sh
    cat >>/etc/ecs/ecs.config <<'CONFIG'
    ECS_ENABLE_SPOT_INSTANCE_DRAINING=true
    ECS_CONTAINER_STOP_TIMEOUT=110s
    CONFIG

    --==triad==--
  MIME
  )
}

locals {
  pools = { for name, pool in {
    cpu = {
      spot           = var.cpu_spot
      instance_types = var.cpu_instance_types
      max_vcpus      = var.cpu_max_vcpus
      image          = "ECS_AL2023"
    }
    gpu = {
      spot           = var.gpu_spot
      instance_types = var.gpu_instance_types
      max_vcpus      = var.gpu_max_vcpus
      image          = "ECS_AL2023_NVIDIA"
    }
  } : name => pool if name == "cpu" || pool.max_vcpus > 0 }

  # A job that no machine here can take would wait for ever.
  misfits = ["MISCONFIGURATION:COMPUTE_ENVIRONMENT_MAX_RESOURCE", "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT"]
}

resource "aws_batch_compute_environment" "pool" {
  for_each     = local.pools
  name_prefix  = "${var.name}-${each.key}-"
  type         = "MANAGED"
  service_role = aws_iam_role.service.arn
  depends_on   = [aws_iam_role_policy_attachment.service]

  compute_resources {
    type                = each.value.spot ? "SPOT" : "EC2"
    allocation_strategy = each.value.spot ? "SPOT_PRICE_CAPACITY_OPTIMIZED" : "BEST_FIT_PROGRESSIVE"
    instance_type       = each.value.instance_types
    instance_role       = aws_iam_instance_profile.instance.arn
    min_vcpus           = 0
    max_vcpus           = each.value.max_vcpus
    subnets             = var.subnet_ids
    security_group_ids  = [aws_security_group.machines.id]
    ec2_configuration {
      image_type = each.value.image
    }
    launch_template {
      launch_template_id = aws_launch_template.machines.id
      version            = aws_launch_template.machines.latest_version
    }
  }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_batch_job_queue" "pool" {
  for_each = local.pools
  name     = "${var.name}-${each.key}"
  state    = "ENABLED"
  priority = 1
  compute_environment_order {
    order               = 1
    compute_environment = aws_batch_compute_environment.pool[each.key].arn
  }
  dynamic "job_state_time_limit_action" {
    for_each = local.misfits
    content {
      action           = "CANCEL"
      state            = "RUNNABLE"
      reason           = job_state_time_limit_action.value
      max_time_seconds = 600
    }
  }
}
