using System.Management.Automation;
using Google.Protobuf.WellKnownTypes;
using Renci.SshNet;

namespace FCtrans.OtherPackages;

/// <summary>Get-OtherPackage: uses each package and gives the assemblies that were used.</summary>
[Cmdlet(VerbsCommon.Get, "OtherPackage")]
[OutputType(typeof(System.Reflection.AssemblyName))]
public sealed class GetOtherPackageCommand : PSCmdlet
{
    /// <inheritdoc/>
    protected override void ProcessRecord()
    {
        object[] used = [Value.Parser.ParseJson("1"), new SftpServer("here")];
        foreach (object one in used)
        {
            WriteObject(one.GetType().Assembly.GetName());
        }
    }
}
