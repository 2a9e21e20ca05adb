namespace FCtrans.Shell;

/// <summary>
/// A few everyday commands for the interactive prompt, which the engine package lacks. Scripts do not get them:
/// what runs here must run in pwsh and the other way round.
/// </summary>
internal static class Comfort
{
    private const string Functions = """
        function global:Set-Location { param([Parameter(Position = 0)][string] $Path = '~')
            $null = $ExecutionContext.SessionState.Path.SetLocation(($Path -eq '~') ? $HOME : $Path)
            [Environment]::CurrentDirectory = $ExecutionContext.SessionState.Path.CurrentFileSystemLocation.ProviderPath }
        function global:Get-Location { $ExecutionContext.SessionState.Path.CurrentLocation }
        function global:Get-ChildItem { param([Parameter(Position = 0)][string] $Path = '.')
            $ExecutionContext.InvokeProvider.ChildItem.Get($Path, $false) }
        function global:Get-Content { param([Parameter(Mandatory, Position = 0)][string] $Path)
            [IO.File]::ReadLines($ExecutionContext.SessionState.Path.GetUnresolvedProviderPathFromPSPath($Path)) }
        function global:Write-Output { param([Parameter(ValueFromPipeline, Position = 0)] $InputObject) process { $InputObject } }
        function global:Write-Host { param([Parameter(ValueFromPipeline, Position = 0)] $Object) process { $Host.UI.WriteLine("$Object") } }
        """;

    public static void Define(Session session)
    {
        using var shell = session.NewShell();
        _ = shell.AddScript(Functions).Invoke();
    }
}
